"""Names of people in the scripts that reports must print."""

NAMES = {
    "Latin": "Łucja José-Ñandú Nguyễn Thị Hồng",
    "Han": "李小龍",
    "Han among Latin": "Wei 李 Zhang",
    "Japanese": "佐藤 さくら カタカナ",
    "Korean": "김민수",
    "Thai": "กิตติ์ณัฏฐ์ ปั้นน้ำ",
    "Devanagari": "अर्जुन क्षत्रिय",
    "Bengali": "শ্রীমতী মুখোপাধ্যায়",
    "Tamil": "தமிழ்ச்செல்வன் கிருஷ்ணமூர்த்தி",
    "Ethiopic": "ሰላማዊት ኃይለማርያም",
    "Telugu": "శ్రీనివాస్",
    "Sinhala": "ශ\u0dca\u200dරී",
    "Arabic": "محمد عبد الله",
    "Persian": "علی\u200cرضا",  # noqa: RUF001
    "Hebrew": "יעל כהן",
    "Greek": "Νίκος Παπαδόπουλος",
    "Cyrillic": "Олександр Шевченко",
    "Armenian": "Երևան",
    "Georgian": "გიორგი",
}
